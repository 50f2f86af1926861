"""Arrays of lens images and labels, wherever they come from."""
