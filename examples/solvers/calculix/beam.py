"""Print a CalculiX input: a square steel cantilever of solid elements, loaded at its tip.

Units are mm, N and MPa. The beam lies along x, is clamped at x = 0, and carries
a force of 100 N in -z, shared evenly by the nodes of its free end.
"""

from __future__ import annotations

LENGTH, SIDE = 200.0, 10.0
FORCE = 100.0
YOUNG = 210_000.0
ALONG, ACROSS = 80, 4
"""Elements along the beam, and along each side of its section."""


def node(i: int, j: int, k: int) -> int:
    """Return the number of the node at so many elements along x, y and z."""
    return 1 + k + (ACROSS + 1) * (j + (ACROSS + 1) * i)


def lines() -> list[str]:
    """Return the lines of the input."""
    section = [(j, k) for j in range(ACROSS + 1) for k in range(ACROSS + 1)]
    out = ["*HEADING", "Cantilever of solid elements", "*NODE, NSET=ALL"]
    step, side = LENGTH / ALONG, SIDE / ACROSS
    for i in range(ALONG + 1):
        out += [f"{node(i, j, k)}, {i * step:g}, {j * side:g}, {k * side:g}" for j, k in section]
    # C3D8I: eight nodes with incompatible modes, which bend without locking.
    out.append("*ELEMENT, TYPE=C3D8I, ELSET=BEAM")
    number = 0
    for i in range(ALONG):
        for j in range(ACROSS):
            for k in range(ACROSS):
                number += 1
                ring = [(0, 0), (1, 0), (1, 1), (0, 1)]
                low = [node(i + a, j + b, k) for a, b in ring]
                high = [node(i + a, j + b, k + 1) for a, b in ring]
                out.append(", ".join(map(str, [number, *low, *high])))
    out.append("*NSET, NSET=CLAMP")
    out += [f"{node(0, j, k)}," for j, k in section]
    out.append("*NSET, NSET=TIP")
    out += [f"{node(ALONG, j, k)}," for j, k in section]
    out += ["*MATERIAL, NAME=STEEL", "*ELASTIC", f"{YOUNG:g}, 0.3"]
    out += ["*SOLID SECTION, ELSET=BEAM, MATERIAL=STEEL"]
    out += ["*BOUNDARY", "CLAMP, 1, 3"]
    out += ["*STEP", "*STATIC", "*CLOAD", f"TIP, 3, {-FORCE / len(section):.10g}"]
    out += ["*NODE PRINT, NSET=TIP", "U", "*END STEP"]
    return out


if __name__ == "__main__":
    print("\n".join(lines()))
