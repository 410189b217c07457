//! Wan VAE: causal 3-D encoder and decoder, streamed by latent frame, whole or tiled.
