//! An assembler for classic BPF that writes a program from its end to its beginning.
//!
//! All jumps of classic BPF go forward. Written backwards, each jump's target is already there when the jump is
//! written, so that its distance is known; a conditional jump reaches 255 instructions, and one that would have to go
//! farther gets an unconditional jump (32 bits) beside it.

use creel_sys::seccomp::Instruction;

// linux/bpf_common.h
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// A place in the program: where to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// `BPF_MAXINSNS`: what the kernel takes.
pub(super) const MAX: usize = 4096;

/// The program so far, its last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// Instructions that are over [`MAX`] and were thrown away: a profile of megabytes shall not become a program of
    /// megabytes that the kernel refuses.
    lost: usize,
    /// The latest place of each answer, to be jumped to again while it is near.
    answers: Vec<(u32, Label)>,
}

impl Assembler {
    fn push(&mut self, instruction: Instruction) -> Label {
        if self.reversed.len() > MAX {
            self.lost += 1;
        } else {
            self.reversed.push(instruction);
        }
        Label(self.reversed.len() - 1)
    }

    /// Instructions that an instruction written now would have to skip to get there.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target.0
    }

    /// Ends the program with an answer.
    pub(super) fn answer(&mut self, value: u32) -> Label {
        // Some room is left for the jumps that are written between now and the use of the label.
        const NEAR: usize = 200;
        if let Some((_, label)) = self.answers.iter().find(|(known, _)| *known == value)
            && self.distance(*label) < NEAR
        {
            return *label;
        }
        let label = self.push(Instruction { code: RETURN, jt: 0, jf: 0, k: value });
        self.answers.retain(|(known, _)| *known != value);
        self.answers.push((value, label));
        label
    }

    /// An operation that goes on at `next`, which must be what was written last or is jumped to.
    pub(super) fn then(&mut self, code: u16, k: u32, next: Label) -> Label {
        if self.distance(next) > 0 {
            self.far(next);
        }
        self.push(Instruction { code, jt: 0, jf: 0, k })
    }

    /// A comparison of the accumulator with `k`.
    pub(super) fn branch(&mut self, code: u16, k: u32, mut yes: Label, mut no: Label) -> Label {
        // Each jump that is put between moves the other target one farther away, at most twice.
        while self.distance(yes) > 255 || self.distance(no) > 255 {
            if self.distance(yes) > 255 {
                yes = self.far(yes);
            }
            if self.distance(no) > 255 {
                no = self.far(no);
            }
        }
        let (jt, jf) = (self.distance(yes), self.distance(no));
        // Both were just made to be at most 255.
        self.push(Instruction { code, jt: jt as u8, jf: jf as u8, k })
    }

    fn far(&mut self, target: Label) -> Label {
        let k = self.distance(target) as u32;
        self.push(Instruction { code: JUMP, jt: 0, jf: 0, k })
    }

    /// Whether the program is longer than the kernel takes, so that it need not be written on.
    pub(super) fn is_full(&self) -> bool {
        self.reversed.len() > MAX
    }

    /// The program from its beginning; `entry` is its first instruction. `None` if it is longer than [`MAX`].
    pub(super) fn finish(mut self, entry: Label) -> Option<Vec<Instruction>> {
        if entry.0 + 1 != self.reversed.len() {
            self.far(entry);
        }
        if self.is_full() || self.lost > 0 {
            return None;
        }
        self.reversed.reverse();
        Some(self.reversed)
    }
}
