//! The service against a model in memory: random interleavings of pushes, deletions, collections, time and crashes. After
//! each step every referenced chunk decodes to its digest, nothing condemned is referenced, a session still has what it
//! was told is there, and steps are those of the model. At the end, when all is deleted, nothing is left in the store.
//!
//! Two processes serve one database and one store, in turns. A crash is an operation that is cut at one of its points of
//! waiting, with everything that it held, and another process that opens what it left, while its replica goes on.

mod world;

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;

use world::World;

/// What can happen. A step's files are a set of [`world::FILES`], as bits.
#[derive(Debug, Clone)]
enum Op {
    /// A whole push, as a client does it.
    Push {
        run: usize,
        step: u64,
        files: u8,
        replace: bool,
        wide: bool,
    },
    /// A session that is filled bit by bit.
    Open {
        run: usize,
        step: u64,
        replace: bool,
        wide: bool,
    },
    Put {
        session: usize,
        chunk: usize,
    },
    Missing {
        session: usize,
        chunks: u8,
    },
    Commit {
        session: usize,
        files: u8,
    },
    Delete {
        run: usize,
        step: u64,
    },
    DeleteRun {
        run: usize,
    },
    KeepLast {
        run: usize,
    },
    Collect,
    Pass {
        hours: u64,
    },
    /// The operation is cut when it waits for the nth time, and the process with it.
    Crash {
        at: usize,
        cut: Box<Op>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (run, step, files) = (0..2_usize, 1..4_u64, 1..32_u8);
    let (session, yes) = (0..4_usize, any::<bool>());
    let calm = prop_oneof![
        5 => (run.clone(), step.clone(), files.clone(), yes, yes)
            .prop_map(|(run, step, files, replace, wide)| Op::Push { run, step, files, replace, wide }),
        2 => (run.clone(), step.clone(), yes, yes).prop_map(|(run, step, replace, wide)| Op::Open { run, step, replace, wide }),
        3 => (session.clone(), 0..7_usize).prop_map(|(session, chunk)| Op::Put { session, chunk }),
        3 => (session.clone(), 1..128_u8).prop_map(|(session, chunks)| Op::Missing { session, chunks }),
        3 => (session, files).prop_map(|(session, files)| Op::Commit { session, files }),
        3 => (run.clone(), step).prop_map(|(run, step)| Op::Delete { run, step }),
        1 => run.clone().prop_map(|run| Op::DeleteRun { run }),
        1 => run.prop_map(|run| Op::KeepLast { run }),
        4 => Just(Op::Collect),
        3 => prop_oneof![Just(6_u64), Just(30), Just(67), Just(100)].prop_map(|hours| Op::Pass { hours }),
    ];
    let calm = calm.boxed();
    prop_oneof![
        4 => calm.clone(),
        1 => (1..60_usize, calm).prop_map(|(at, cut)| Op::Crash { at, cut: Box::new(cut) }),
    ]
}

/// Polls a future so many times, then drops it; whether it ended before.
async fn cut_at<T>(at: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut n = 0;
    std::future::poll_fn(|context| {
        n += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if n >= at => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_is_left(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.step(op).await;
                world.check(op).await;
            }
            world.end().await;
        });
    }
}
