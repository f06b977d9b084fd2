"""Networks from files of weights: reading the file, running it, preparing pictures, decoding what comes out."""
