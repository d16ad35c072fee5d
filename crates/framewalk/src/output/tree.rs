//! The profile by names: frames that differ only in their addresses are one, and so are stacks.
//!
//! It has as many nodes as a flame graph has boxes, however many samples there are.

use super::View;
use super::folded;
use crate::profile::{FrameId, StackId};
use ahash::RandomState;
use indexmap::IndexSet;
use std::collections::HashMap;

/// A box of a flame graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Node {
    caller: u32,
    entry: u32,
}

/// The caller of the outermost entries.
const NOBODY: u32 = u32::MAX;

/// Stacks by names, with their counts.
#[derive(Debug)]
pub(super) struct Tree {
    /// What stands in the boxes, once each.
    entries: IndexSet<String, RandomState>,
    /// Callers come before what they call.
    nodes: IndexSet<Node, RandomState>,
    /// How many samples each node is the innermost of.
    own: Vec<u64>,
}

impl Tree {
    pub(super) fn new(view: &View) -> Tree {
        let tree = Tree {
            entries: IndexSet::default(),
            nodes: IndexSet::default(),
            own: Vec::new(),
        };
        let frames = vec![Vec::new(); view.profile.frames().len()];
        let mut builder = Builder {
            view,
            tree,
            frames,
            known: HashMap::default(),
        };
        for ((thread, stack), count) in view.profile.counted() {
            let thread = root(&view.profile.thread(thread).comm);
            let thread = builder.entry(thread);
            let node = builder.node(thread, stack);
            builder.tree.own[node as usize] += count;
        }
        builder.tree
    }

    /// What stands in the boxes, and whether in an outermost one.
    pub(super) fn boxes(&self) -> impl Iterator<Item = (&str, bool)> {
        self.nodes.iter().map(|node| {
            (
                self.entries[node.entry as usize].as_str(),
                node.caller == NOBODY,
            )
        })
    }

    /// Samples of each node and of all that it called.
    fn totals(&self) -> Vec<u64> {
        let mut totals = self.own.clone();
        for (number, node) in self.nodes.iter().enumerate().rev() {
            if let Some(caller) = self
                .own
                .get(node.caller as usize)
                .map(|_| node.caller as usize)
            {
                totals[caller] += totals[number];
            }
        }
        totals
    }

    /// Says every stack as `outermost;...;innermost` with its count; stacks with the same callers
    /// follow each other. What has fewer than `least` samples in all is counted for its caller.
    pub(super) fn each_line<E>(
        &self,
        least: u64,
        mut say: impl FnMut(&str, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let totals = self.totals();
        // All nodes by caller, and those of one caller by name: each caller's are one run.
        let name = |number: u32| self.entries[self.nodes[number as usize].entry as usize].as_str();
        let caller = |number: u32| self.nodes[number as usize].caller;
        let mut order: Vec<u32> = (0..self.nodes.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| {
            caller(a).cmp(&caller(b)).then_with(|| name(a).cmp(name(b)))
        });
        let called_by = |node| {
            let first = order.partition_point(|&other| caller(other) < node);
            let count = order[first..].partition_point(|&other| caller(other) == node);
            &order[first..first + count]
        };

        let mut line = String::new();
        // Nodes to visit, and how long the line of their caller is.
        let mut visits: Vec<(u32, usize)> = called_by(NOBODY)
            .iter()
            .rev()
            .map(|&node| (node, 0))
            .collect();
        while let Some((node, length)) = visits.pop() {
            line.truncate(length);
            if length > 0 {
                line.push(';');
            }
            line.push_str(name(node));
            let called = called_by(node);
            let total = |&node: &u32| totals[node as usize];
            let small: u64 = called
                .iter()
                .map(total)
                .filter(|&total| total < least)
                .sum();
            let count = self.own[node as usize] + small;
            if count > 0 {
                say(&line, count)?;
            }
            let large = called.iter().rev().filter(|node| total(node) >= least);
            visits.extend(large.map(|&node| (node, line.len())));
        }
        Ok(())
    }
}

struct Builder<'a> {
    view: &'a View<'a>,
    tree: Tree,
    /// The entries of each frame, once it was met; outermost first.
    frames: Vec<Vec<u32>>,
    /// The nodes of stacks, under the name of their thread.
    known: HashMap<(u32, StackId), u32, RandomState>,
}

impl Builder<'_> {
    fn entry(&mut self, text: String) -> u32 {
        self.tree.entries.insert_full(text).0 as u32
    }

    fn child(&mut self, caller: u32, entry: u32) -> u32 {
        let (number, new) = self.tree.nodes.insert_full(Node { caller, entry });
        if new {
            self.tree.own.push(0);
        }
        number as u32
    }

    fn node(&mut self, thread: u32, stack: StackId) -> u32 {
        // From the innermost frame out to the first stack that is known already, and back.
        let mut missing = Vec::new();
        let mut rest = stack;
        let mut node = loop {
            if let Some(&node) = self.known.get(&(thread, rest)) {
                break node;
            }
            let Some((frame, caller)) = self.view.profile.split(rest) else {
                let node = self.child(NOBODY, thread);
                let Some(cut) = folded::cut(self.view.profile.stop(rest)) else {
                    break node;
                };
                let cut = self.entry(cut);
                break self.child(node, cut);
            };
            missing.push((rest, frame));
            rest = caller;
        };
        for (stack, frame) in missing.into_iter().rev() {
            if self.frames[frame.0 as usize].is_empty() {
                self.frames[frame.0 as usize] = self.entries_of(frame);
            }
            for i in 0..self.frames[frame.0 as usize].len() {
                node = self.child(node, self.frames[frame.0 as usize][i]);
            }
            self.known.insert((thread, stack), node);
        }
        node
    }

    fn entries_of(&mut self, frame: FrameId) -> Vec<u32> {
        let view = self.view;
        let mark = folded::mark(view.profile.frame(frame).frame.origin);
        view.symbols
            .of(frame)
            .map(|(function, _)| self.entry(entry(&function.name, mark)))
            .collect()
    }
}

/// An entry without what means something in the folded format: `;` between entries, a number at the
/// end of a line.
fn entry(name: &str, mark: &str) -> String {
    let mut entry = name.replace(';', ":");
    if let Some((first, last)) = entry.rsplit_once(' ')
        && last.parse::<f64>().is_ok()
    {
        let at = first.len();
        entry.replace_range(at..=at, "_");
    }
    if !name.starts_with('[') {
        entry.push_str(mark);
    }
    entry
}

/// The entry of a thread; at the begin of a line `#` would be a comment.
fn root(comm: &str) -> String {
    let entry = entry(&crate::symbols::clean(comm), "");
    if entry.trim().is_empty() || entry.starts_with('#') {
        format!("_{entry}")
    } else {
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(stacks: &[(&[&str], u64)]) -> Tree {
        let mut tree = Tree {
            entries: IndexSet::default(),
            nodes: IndexSet::default(),
            own: Vec::new(),
        };
        for &(stack, count) in stacks {
            let node = stack.iter().fold(NOBODY, |caller, name| {
                let entry = tree.entries.insert_full(name.to_string()).0 as u32;
                let (number, new) = tree.nodes.insert_full(Node { caller, entry });
                tree.own.extend(new.then_some(0));
                number as u32
            });
            tree.own[node as usize] += count;
        }
        tree
    }

    fn lines(tree: &Tree, least: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let all: Result<(), ()> = tree.each_line(least, |line, count| {
            lines.push(format!("{line} {count}"));
            Ok(())
        });
        all.map(|()| lines).unwrap()
    }

    #[test]
    fn stacks_come_back_with_their_counts() {
        let tree = tree(&[
            (&["b"], 1),
            (&["a", "y", "z"], 2),
            (&["a", "x"], 3),
            (&["a", "y"], 4),
        ]);
        assert_eq!(lines(&tree, 0), ["a;x 3", "a;y 4", "a;y;z 2", "b 1"]);
    }

    #[test]
    fn small_ones_are_counted_for_their_callers() {
        let tree = tree(&[
            (&["a", "y", "z"], 2),
            (&["a", "x"], 3),
            (&["a", "y"], 4),
            (&["a", "w"], 1),
        ]);
        assert_eq!(lines(&tree, 3), ["a 1", "a;x 3", "a;y 6"]);
        assert_eq!(lines(&tree, 100), ["a 10"], "outermost ones always stay");
    }

    #[test]
    fn entries_cannot_be_mistaken() {
        assert_eq!(entry("a;b", "_[k]"), "a:b_[k]");
        assert_eq!(entry("a 1 2.5", ""), "a 1_2.5");
        assert_eq!(entry("operator new", ""), "operator new");
        assert_eq!(entry("[kernel]", "_[k]"), "[kernel]");
        assert_eq!(root("# a"), "_# a");
        assert_eq!(root(""), "_");
        assert_eq!(root("a\n7"), "a\u{fffd}7");
    }
}
