//! Request to video in one direction: condition, denoise, decode, encode.
