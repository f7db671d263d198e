"""The doors: a command line and a page to look at."""
