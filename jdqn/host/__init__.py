"""What only the programs need: files, pictures, progress, other simulators. The core imports none of it."""
