"""ONNX detectors: reading the file, running the graph, preparing pictures, decoding what comes out."""
