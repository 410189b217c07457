//! Fused tensor operations, each one unit with a plain-tensor reference and a half for every device.
