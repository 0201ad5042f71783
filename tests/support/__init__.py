"""What tests stand on: an outside reference model, its image preprocessing, and test images."""
