"""LLM2Vec: a decoder-only LLM made into a question encoder, and the small one that is bundled, from scratch."""
