"""Exporting PyTorch modules to packages: the wing of aoti that needs torch.

May import: everything below the wings.
"""
