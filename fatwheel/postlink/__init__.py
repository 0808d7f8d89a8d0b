"""Edit finished wheels and libraries: put device code of several together, or leave some out."""
