"""Training latents of depth: a module that reads depth for a language model (SSR)."""
