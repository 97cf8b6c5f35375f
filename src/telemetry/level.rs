//! How grave an entry is.

/// Least to most grave. The last two are thresholds only: nothing is logged at them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

impl Level {
    /// Any case; empty is `info`. `None` for a word that is no level.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "" | "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }

    #[must_use]
    pub const fn lower(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }

    #[must_use]
    pub const fn upper(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Panic => "PANIC",
            Self::Fatal => "FATAL",
        }
    }

    /// Upper case in zap's terminal colours.
    #[must_use]
    pub const fn coloured(self) -> &'static str {
        match self {
            Self::Debug => "\x1b[35mDEBUG\x1b[0m",
            Self::Info => "\x1b[34mINFO\x1b[0m",
            Self::Warn => "\x1b[33mWARN\x1b[0m",
            Self::Error => "\x1b[31mERROR\x1b[0m",
            Self::Panic => "\x1b[31mPANIC\x1b[0m",
            Self::Fatal => "\x1b[31mFATAL\x1b[0m",
        }
    }
}
