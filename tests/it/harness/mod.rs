//! What the integration tests share.

pub mod billing_upstream;
pub mod ca;
pub mod client;
pub mod cloudflare;
pub mod llm_answers;
pub mod llm_upstream;
pub mod pebble;
pub mod process;
pub mod scripted_upstream;
pub mod standin;
pub mod tls;
pub mod upstream;

/// `Some(folder)` of a fixture beside the repository or its override in `variable`; `None`, with a message, where it is
/// absent.
pub fn beside(variable: &str, relative: &str) -> Option<std::path::PathBuf> {
    let default = || repository().join("..").join(relative);
    let folder = std::env::var_os(variable).map_or_else(default, Into::into);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {relative} is not beside the repository");
    None
}

pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `work` over `items` on a few threads and returns the results in order: a test of many small processes should
/// use both cores.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// `./test --long`: tests run at full size.
pub fn long() -> bool {
    std::env::var("LLMPROXY_TEST_LONG").as_deref() == Ok("1")
}
