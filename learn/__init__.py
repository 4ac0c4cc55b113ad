"""Tables to predictions: heads over the codes, fusion rules, the protocol, metrics, intervals, reports."""
