//! The Firefox Profiler's processed profile (profiler.firefox.com), gzipped JSON.
//!
//! Every thread on a time line. Frames are labels with a category: programs, kernel, guesses and
//! the places where stacks were cut.

use super::View;
use super::folded;
use crate::profile::{FrameId, StackId};
use flate2::Compression;
use flate2::write::GzEncoder;
use framewalk_walk::Origin;
use fxprof_processed_profile::{
    CategoryColor, CategoryPairHandle, CpuDelta, Frame, FrameFlags, FrameInfo, Profile,
    ReferenceTimestamp, SamplingInterval, StackHandle, ThreadHandle, Timestamp,
};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

struct Categories {
    program: CategoryPairHandle,
    kernel: CategoryPairHandle,
    guess: CategoryPairHandle,
    cut: CategoryPairHandle,
}

struct Builder<'a> {
    view: &'a View<'a>,
    profile: Profile,
    categories: Categories,
    stacks: HashMap<(ThreadHandle, StackId), Option<StackHandle>>,
}

impl Builder<'_> {
    fn label(
        &mut self,
        thread: ThreadHandle,
        caller: Option<StackHandle>,
        text: &str,
        category: CategoryPairHandle,
    ) -> StackHandle {
        let frame = Frame::Label(self.profile.intern_string(text));
        let info = FrameInfo {
            frame,
            category_pair: category,
            flags: FrameFlags::empty(),
        };
        let frame = self.profile.intern_frame(thread, info);
        self.profile.intern_stack(thread, caller, frame)
    }

    fn frame(
        &mut self,
        thread: ThreadHandle,
        mut stack: Option<StackHandle>,
        frame: FrameId,
    ) -> Option<StackHandle> {
        let category = match self.view.profile.frame(frame).frame.origin {
            Origin::Kernel => self.categories.kernel,
            Origin::FramePointer => self.categories.guess,
            _ => self.categories.program,
        };
        let view = self.view;
        for (function, _) in view.symbols.of(frame) {
            stack = Some(self.label(thread, stack, &function.name, category));
        }
        stack
    }

    /// The same stack in the profile of a thread.
    fn stack(&mut self, thread: ThreadHandle, stack: StackId) -> Option<StackHandle> {
        // From the innermost frame out to the first stack that is known already, and back.
        let mut missing = Vec::new();
        let mut rest = stack;
        let mut handle = loop {
            if let Some(&handle) = self.stacks.get(&(thread, rest)) {
                break handle;
            }
            let Some((frame, caller)) = self.view.profile.split(rest) else {
                let cut = folded::cut(self.view.profile.stop(rest));
                break cut.map(|text| self.label(thread, None, &text, self.categories.cut));
            };
            missing.push((rest, frame));
            rest = caller;
        };
        for (stack, frame) in missing.into_iter().rev() {
            handle = self.frame(thread, handle, frame);
            self.stacks.insert((thread, stack), handle);
        }
        handle
    }

    fn time(&self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_nanos_since_reference(
            monotonic_ns.saturating_sub(self.view.began_monotonic_ns),
        )
    }
}

fn build(view: &View) -> Profile {
    let began: ReferenceTimestamp = (UNIX_EPOCH + Duration::from_nanos(view.began_wall_ns)).into();
    let mut profile = Profile::new(
        view.title,
        began,
        SamplingInterval::from_nanos(view.period_ns),
    );
    profile.set_symbolicated(true);
    profile.set_os_name("Linux");
    let mut category = |name, color| profile.add_category(name, color).into();
    let categories = Categories {
        program: category("Program", CategoryColor::Yellow),
        kernel: category("Kernel", CategoryColor::Orange),
        guess: category("Guess (by frame pointer)", CategoryColor::LightBlue),
        cut: category("Cut off", CategoryColor::DarkGray),
    };

    // A thread has an entry for each of its names; here the last one stands.
    let mut samples: BTreeMap<(u32, u32), Vec<(u64, StackId)>> = BTreeMap::new();
    let mut names: HashMap<u32, &str> = HashMap::new();
    for sample in view.profile.samples() {
        let thread = view.profile.thread(sample.thread);
        samples
            .entry((thread.pid, thread.tid))
            .or_default()
            .push((sample.time_ns, sample.stack));
        names.insert(thread.tid, &thread.comm);
    }

    let mut builder = Builder {
        view,
        profile,
        categories,
        stacks: HashMap::new(),
    };
    let mut processes = HashMap::new();
    for ((pid, tid), mut samples) in samples {
        // Rings of several CPUs are read one after the other.
        samples.sort_by_key(|&(time, _)| time);
        let begin = builder.time(samples.first().map_or(0, |&(time, _)| time));
        let thread_name = names.get(&tid).copied().unwrap_or_default();
        let process = *processes.entry(pid).or_insert_with(|| {
            let name = names.get(&pid).copied().unwrap_or(thread_name);
            builder.profile.add_process(name, pid, begin)
        });
        let thread = builder.profile.add_thread(process, tid, begin, tid == pid);
        builder.profile.set_thread_name(thread, thread_name);
        for (time, stack) in samples {
            let stack = builder.stack(thread, stack);
            let time = builder.time(time);
            builder.profile.add_sample(
                thread,
                time,
                stack,
                CpuDelta::from_nanos(view.period_ns),
                1,
            );
        }
    }
    builder.profile
}

/// Writes the file.
pub fn write(view: &View, writer: &mut dyn Write) -> io::Result<()> {
    let mut writer = GzEncoder::new(writer, Compression::default());
    serde_json::to_writer(&mut writer, &build(view))?;
    writer.finish()?;
    Ok(())
}
