//! Model descriptions and the registry that finds their files; carries the embedded tiny model.
