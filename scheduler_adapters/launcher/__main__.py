"""Where the launcher begins when its folder is run by path, or as a module."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

if __package__:
    from .daemon import main
else:
    # The folder becomes the package `launcher` by itself: neither what lies beside it nor
    # anything else on the path can stand in for one of its modules, or the reverse.
    package = ModuleType("launcher")
    package.__path__ = [os.path.abspath(sys.path.pop(0))]
    sys.modules["launcher"] = package
    main = importlib.import_module("launcher.daemon").main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
