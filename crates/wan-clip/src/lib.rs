//! CLIP ViT-H/14 vision encoder: preprocessing and the first 31 blocks.
