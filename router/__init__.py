"""SERVING: encode a prompt, score every model, choose one, proxy to it."""
