"""PyTorch's CPU libraries for aoti: found by it, and of no use by itself."""
