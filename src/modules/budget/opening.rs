//! What a budget has been spent, read from the ledger before the first request.

use std::sync::Arc;

use crate::config::go_live::GoLive;
use crate::config::usage_ledger::UsageLedger;
use crate::state::period::Period;
use crate::state::purse::{Purse, Sum};
use crate::state::spend::Amount;
use crate::storage::ledger::{Ledger, Spent};
use crate::telemetry::encoder;

/// Done once for a budget, however many handlers and reloads there are.
pub struct Opening {
    pub budget: String,
    pub purse: Arc<dyn Purse>,
    pub ledger: Arc<UsageLedger>,
}

impl GoLive for Opening {
    fn go_live(&self) -> Result<(), String> {
        let ledger = self.ledger.open()?;
        let mut failed = None;
        self.purse.open(&mut || {
            read(ledger, &self.budget).unwrap_or_else(|why| {
                failed = Some(why);
                Vec::new()
            })
        });
        failed.map_or(Ok(()), Err)
    }
}

/// The sums of the periods that go on, and of those that a clock which is set back may fall into.
fn read(ledger: &Ledger, budget: &str) -> Result<Vec<Sum>, String> {
    const MONTHS: i64 = 62 * 86_400;
    let from = encoder::now() / 1_000_000_000 - MONTHS;
    match ledger.spent(budget, from) {
        Ok(spent) => Ok(spent.into_iter().filter_map(sum).collect()),
        // The ledger has said itself what is wrong, and goes on when that is over: so do requests.
        Err(error) if ledger.status().error.is_some() => {
            tracing::error!(budget, %error, "what has been spent cannot be read: the budget begins at nothing");
            Ok(Vec::new())
        }
        Err(error) => Err(format!("what the budget `{budget}` has been spent cannot be read: {error}")),
    }
}

fn sum(spent: Spent) -> Option<Sum> {
    let period = Period::named(&spent.per)?;
    let spent_so_far = Amount { nano: u64::try_from(spent.cost.0).unwrap_or(0), tokens: spent.tokens };
    Some(Sum { key: spent.key, period, start: spent.period, spent: spent_so_far })
}
