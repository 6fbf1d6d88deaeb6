"""The invented subject repositories of the small BugsInPy world, and their bugs."""
