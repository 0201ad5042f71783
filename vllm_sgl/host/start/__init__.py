"""Starting the two engines: their classes, arguments, devices and processes."""
