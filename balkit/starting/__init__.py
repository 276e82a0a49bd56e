"""The first minute: what lies in a folder, what is in a file of rows, and the recipe that comes of it."""
