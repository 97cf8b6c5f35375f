//! The `llmproxy` command.

fn main() -> std::process::ExitCode {
    llmproxy::cli::main()
}
