"""Generated stubs, nothing else: see proto/generate.py."""
