"""What people hold in a notebook or a script."""
