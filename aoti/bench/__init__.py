"""How fast a model is here, and beside other engines: the wing that measures.

>>> from aoti.bench.run import measure
>>> report = measure("minilm.pt2", engines=["stock"], dims={"sequence": [16, 128]})
>>> report.measurements[0].latency_ms.median
5.1

``aoti bench`` is the same on the command line. May import: exporting, and everything below the
wings.
"""
