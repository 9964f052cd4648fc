"""The shell: `simyard` and `submit_job`. Thin: parse, call the handler, print."""
