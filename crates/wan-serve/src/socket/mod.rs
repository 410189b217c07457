//! `/ws`: what happens, told to those who listen.

mod connection;
mod frames;
mod hub;

pub(crate) use connection::upgrade;
pub(crate) use hub::Hub;
