"""The files of a model. aoti finds them without importing this."""
