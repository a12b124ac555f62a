"""Exporting PyTorch modules to packages: the wing of aoti that needs torch.

May import: golden, package, signature, machine and errors.
"""
