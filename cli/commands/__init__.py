"""The commands of `simyard`, one module each: `arguments` and `run`; imported only when asked for."""
