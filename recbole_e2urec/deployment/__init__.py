"""A served model: its folder, its requests one after the other, and its recommendations."""
