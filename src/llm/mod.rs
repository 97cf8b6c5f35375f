//! Room llm.
