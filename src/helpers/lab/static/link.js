// A lab's state in the query of an address.

// The parts of a state that the lab has, and words for what it has not.
export function stateOfLink(spec, search) {
  const query = new URLSearchParams(search), state = {}, refused = [];
  if (query.get("lab") !== spec.name) return { state, refused };
  const { targets, counts, particles, schedules, samplers, families } = spec;
  const schedule = Object.keys(schedules), steps = Object.keys(schedules[schedule[0]]);
  const known = { target: targets, count: counts, schedule, steps, particles };
  const side = (value) => {
    const [name, knob = "", sampler] = value.split("~");
    const has = families.some((f) => f.name === name && f.values.includes(knob));
    return has && samplers.includes(sampler) ? [name, knob, sampler] : undefined;
  };
  const whole = (v) => (/^\d{1,10}$/.test(v) && v < 2 ** 32 ? Number(v) : undefined);
  const readers = new Map([ // not an object, for any of these has a "constructor"
    ...Object.entries(known).map(([key, all]) => [key, (v) => (all.includes(v) ? v : undefined)]),
    ["left", side], ["right", side], ["seed", whole],
  ]);
  for (const [key, value] of query) {
    if (!readers.has(key)) continue;
    const found = readers.get(key)(value);
    if (found === undefined) refused.push(`${key} ${value}`);
    else state[key] = found;
  }
  return { state, refused };
}

// The query that names all that is not as at the start; empty where nothing is.
export function linkOfState({ name, start }, state) {
  const text = (value) => [value].flat().join("~");
  const changed = Object.keys(state).filter((key) => text(state[key]) !== text(start[key]));
  const parts = changed.map((key) => [key, text(state[key])]);
  return changed.length ? `?${new URLSearchParams([["lab", name], ...parts])}` : "";
}
