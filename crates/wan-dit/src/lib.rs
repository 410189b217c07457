//! Wan2.1 diffusion transformer for image-to-video and text-to-video.
