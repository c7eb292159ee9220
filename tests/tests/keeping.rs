//! What a node keeps and what it gives up: scores over a restart, relays that the registry drops while everybody runs.

use core::time::Duration;
use lokinet_core::netdb::profile::{FAILURE, HALF_LIFE};
use lokinet_tests::person::relays_on_the_way;
use lokinet_tests::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn who_failed_us_is_remembered_over_a_restart() {
    let mut world = World::town(201, 10, 1, 0);
    assert!(world.awake(SECOND * 10));
    world.run_for(SECOND * 5);
    let victim = relays_on_the_way(&world, "client1")[2].clone();
    let key = world.key(&victim).expect("relays have keys");
    world.kill(&victim);
    assert!(world.run_until(|world| world.kept_scores("client1", key) >= FAILURE, SECOND * 60), "no score was kept");
    world.kill("client1");
    let kept = world.kept_scores("client1", key);
    world.start("client1");
    // Only who read the old scores can halve them: nobody gives this client a path through the dead relay.
    world.run_for(HALF_LIFE + SECOND * 15);
    let now = world.kept_scores("client1", key);
    assert!(now != kept, "the restarted client knows nothing of the scores it kept: {kept} then, {now} now");
}
