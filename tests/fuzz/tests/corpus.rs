//! Tests that no stored input and no mutation of one breaks a target.

use flashjob_fuzz::{Mutations, TARGETS, corpus};

#[test]
fn nothing_from_outside_breaks_what_reads_it() -> anyhow::Result<()> {
    for target in TARGETS {
        let inputs = corpus(&target)?;
        inputs.iter().for_each(|input| (target.run)(input));
        let mut mutations = Mutations::new(1);
        for _ in 0..target.changes {
            let input = mutations.next(&inputs);
            // The test shows this output if the target panics.
            println!(
                "{}: {:?}",
                target.name,
                String::from_utf8_lossy(&input[..input.len().min(300)])
            );
            (target.run)(&input);
        }
    }
    Ok(())
}
