//! Runs the work beside requests: on one thread, begun with the first configuration that has any.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::background::Background;

/// How long after a fault it begins anew.
const AFTER_A_FAULT: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1000 });

type Work = Vec<Arc<dyn Background>>;

/// A handle to the thread, which ends with it.
#[derive(Default)]
pub struct Runner {
    sender: Option<mpsc::UnboundedSender<Work>>,
}

impl Runner {
    /// Runs exactly this work from now on. What runs already under the same identity goes on undisturbed.
    pub fn apply(&mut self, work: &[Arc<dyn Background>]) {
        if self.sender.is_none() && !work.is_empty() {
            match start() {
                Ok(sender) => self.sender = Some(sender),
                Err(error) => tracing::error!(%error, "health checks cannot be made: no thread for them"),
            }
        }
        if let Some(sender) = &self.sender {
            // Fails only when the thread has ended, and then there is nobody to tell.
            let _ = sender.send(work.to_vec());
        }
    }
}

fn start() -> std::io::Result<mpsc::UnboundedSender<Work>> {
    let (sender, mut received) = mpsc::unbounded_channel::<Work>();
    std::thread::Builder::new().name("background".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "health checks cannot be made: no runtime for them"),
        };
        runtime.block_on(async move {
            let mut running = HashMap::new();
            while let Some(work) = received.recv().await {
                replace(&mut running, work);
            }
        });
    })?;
    Ok(sender)
}

fn replace(running: &mut HashMap<Box<str>, JoinHandle<()>>, work: Work) {
    let mut before = std::mem::take(running);
    for work in work {
        let kept = before.remove(work.identity()).filter(|task| !task.is_finished());
        if !running.contains_key(work.identity()) {
            let identity = work.identity().into();
            running.insert(identity, kept.unwrap_or_else(|| tokio::task::spawn_local(keep_running(work))));
        }
    }
    for task in before.into_values() {
        task.abort();
    }
}

/// A fault in the work ends one round of it, not the work.
async fn keep_running(work: Arc<dyn Background>) {
    loop {
        let mut round = Round(tokio::task::spawn_local(Arc::clone(&work).run()));
        match (&mut round.0).await {
            Err(error) if error.is_panic() => {
                tracing::error!("a fault in the work beside requests: it begins anew");
                tokio::time::sleep(AFTER_A_FAULT).await;
            }
            _ => return,
        }
    }
}

/// Ends with whoever waits for it.
struct Round(JoinHandle<()>);

impl Drop for Round {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::sync::Mutex;

    struct Recorded {
        identity: &'static str,
        log: Arc<Mutex<Vec<String>>>,
    }

    struct Ended(Arc<Mutex<Vec<String>>>, &'static str);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(format!("{} ends", self.1));
        }
    }

    impl Background for Recorded {
        fn identity(&self) -> &str {
            self.identity
        }

        fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
            Box::pin(async move {
                self.log.lock().unwrap().push(format!("{} begins", self.identity));
                assert!(self.identity != "faulty" || self.log.lock().unwrap().len() > 1, "on purpose");
                let _ended = Ended(Arc::clone(&self.log), self.identity);
                std::future::pending::<()>().await;
            })
        }
    }

    #[test]
    fn work_of_the_same_identity_goes_on_and_the_rest_is_replaced() {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let work = |names: &[&'static str]| -> Work {
            let made =
                |identity: &&'static str| Arc::new(Recorded { identity, log: Arc::clone(&log) }) as Arc<dyn Background>;
            names.iter().map(made).collect()
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        let (mut running, mut seen) = (HashMap::new(), Vec::new());
        for names in [&["a", "b", "a"][..], &["b", "c"], &[]] {
            runtime.block_on(async {
                replace(&mut running, work(names));
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
            });
            let mut step = std::mem::take(&mut *log.lock().unwrap());
            step.sort();
            seen.push(step.join(", "));
        }
        assert_eq!(seen, ["a begins, b begins", "a ends, c begins", "b ends, c ends"]);
    }

    fn runtime() -> tokio::runtime::LocalRuntime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap()
    }

    #[test]
    fn a_fault_does_not_end_the_work() {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut running = HashMap::new();
        runtime().block_on(async {
            let work = Recorded { identity: "faulty", log: Arc::clone(&log) };
            replace(&mut running, vec![Arc::new(work)]);
            let twice = async {
                while log.lock().unwrap().len() < 2 {
                    tokio::time::sleep(AFTER_A_FAULT).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), twice).await.unwrap();
        });
        assert_eq!(log.lock().unwrap()[..2], ["faulty begins", "faulty begins"]);
    }
}
