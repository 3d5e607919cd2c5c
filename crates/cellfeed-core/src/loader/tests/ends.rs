//! Runs without an end and fetches that end: what is left when there is nothing to do.

use super::{Odd, plan, store};
use crate::io::{Engine, EngineOptions};
use crate::loader::{Loader, LoaderOptions};
use crate::plan::{Plan, PlanOptions, Strategy};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

#[test]
fn endless_epochs_of_nothing_end() {
    let few = PlanOptions::default().with_batch_size(8).with_fetch_factor(2).with_drop_last(true);
    for n in [0, 7] {
        let plan = Plan::new(n, Strategy::TrueRandom, &few).unwrap();
        let loader = Loader::new(store(n), plan, LoaderOptions::default()).unwrap();
        let mut run = loader.epochs(0..u64::MAX).unwrap();
        assert!(run.next().is_none());
        drop(loader.epochs(0..u64::MAX).unwrap());
    }
}

#[test]
fn endless_epochs_begin_with_what_is_left_of_one() {
    let options = PlanOptions::default().with_batch_size(8).with_fetch_factor(2);
    let whole = Plan::new(40, Strategy::TrueRandom, &options).unwrap();
    let plan = whole.resume(&whole.state(3, 4).unwrap()).unwrap();
    let loader = Loader::new(store(40), plan, LoaderOptions::default()).unwrap();
    let run = loader.epochs(3..u64::MAX).unwrap();
    let epochs: Vec<u64> = run.take(11).map(|minibatch| minibatch.unwrap().epoch()).collect();
    assert_eq!(epochs, [vec![3], vec![4; 5], vec![5; 5]].concat());
}

#[test]
fn a_fetch_that_is_gathered_makes_room_before_anybody_takes_its_minibatches() {
    let odd = Odd::new(96);
    let reading = Arc::clone(&odd.reading);
    let engine = Arc::new(Engine::new(EngineOptions::default().with_threads(2)));
    let options = LoaderOptions::default().with_memory(4096).with_engine(engine);
    let loader = Loader::new(Arc::new(odd), plan(96), options).unwrap();
    let run = loader.epoch(0).unwrap();
    // One is gathered, and one read ahead: the third has the place of the first.
    let start = Instant::now();
    while reading.load(Relaxed) < 3 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(reading.load(Relaxed), 3);
    drop(run);
}

#[test]
fn any_number_of_fetches_to_read_ahead_is_taken() {
    let options = LoaderOptions::default().with_read_ahead(usize::MAX);
    let loader = Loader::new(store(50), plan(50), options).unwrap();
    assert_eq!(loader.epoch(0).unwrap().filter(Result::is_ok).count(), 9);
}
