"""Arrays of numpy, torch, jax and cupy, without importing these: conversion, checks, batches.

May import: engine, options, machine, signature and errors.
"""
