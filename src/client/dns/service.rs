//! Places of a service as SRV records tell them (RFC 2782), and the order in which they are to be tried.

use fastrand::Rng;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest is tried first.
    pub priority: u16,
    /// Its share among those of one priority.
    pub weight: u16,
    pub port: u16,
    /// An absolute name with its final dot.
    pub target: String,
}

/// By priority; within one, at random by weight.
#[must_use]
pub fn in_order(mut services: Vec<Service>, rng: &mut Rng) -> Vec<Service> {
    services.sort_by_key(|service| (service.priority, service.weight));
    for group in services.chunk_by_mut(|a, b| a.priority == b.priority) {
        shuffle(group, rng);
    }
    services
}

fn shuffle(mut group: &mut [Service], rng: &mut Rng) {
    let mut sum: u32 = group.iter().map(|service| u32::from(service.weight)).sum();
    while sum > 0 && group.len() > 1 {
        let drawn = rng.u32(0..sum);
        let mut passed = 0;
        let at = group.iter().position(|service| {
            passed += u32::from(service.weight);
            passed > drawn
        });
        // The order of the others stays: the lightest are first to be drawn from.
        group[..=at.unwrap_or(0)].rotate_right(1);
        let Some((first, rest)) = group.split_first_mut() else { return };
        sum -= u32::from(first.weight);
        group = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, port: u16) -> Service {
        Service { priority, weight, port, target: "a.test.".into() }
    }

    #[test]
    fn priorities_come_first_and_weights_are_shares() {
        let mut rng = Rng::with_seed(7);
        let all = [service(2, 9, 5), service(1, 30, 1), service(1, 10, 2), service(1, 0, 3)];
        let mut firsts = [0_u32; 6];
        for _ in 0..4000 {
            let ports: Vec<u16> = in_order(all.to_vec(), &mut rng).iter().map(|s| s.port).collect();
            assert_eq!(ports[3], 5, "{ports:?}");
            let mut sorted = ports.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [1, 2, 3, 5]);
            firsts[usize::from(ports[0])] += 1;
        }
        assert!((2800..3200).contains(&firsts[1]) && (800..1200).contains(&firsts[2]), "{firsts:?}");
        assert_eq!(firsts[3], 0);
    }

    #[test]
    fn nothing_and_no_weights_stay_in_order() {
        let mut rng = Rng::with_seed(1);
        assert!(in_order(Vec::new(), &mut rng).is_empty());
        let flat = vec![service(0, 0, 1), service(0, 0, 2)];
        assert_eq!(in_order(flat.clone(), &mut rng), flat);
    }
}
