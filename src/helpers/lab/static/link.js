// A lab's state in the query of an address.

// The parts of a state that the lab has, and words for what it has not.
export function stateOfLink(spec, search) {
  const query = new URLSearchParams(search), state = {}, refused = [];
  if (query.get("lab") !== spec.name) return { state, refused };
  const schedules = Object.keys(spec.schedules), steps = Object.keys(spec.schedules[schedules[0]]);
  const known = new Map([ // since any object has a "constructor"
    ["target", spec.targets], ["count", spec.counts], ["schedule", schedules],
    ["steps", steps], ["particles", spec.particles],
  ]);
  const read = (key, value) => {
    if (known.get(key)?.includes(value)) return value;
    if (key === "seed" && /^\d{1,10}$/.test(value) && value < 2 ** 32) return Number(value);
    if (key !== "left" && key !== "right") return undefined;
    const [name, knob = "", sampler] = value.split("~");
    const family = spec.families.find((f) => f.name === name);
    const has = family?.values.includes(knob) && spec.samplers.includes(sampler);
    return has ? [name, knob, sampler] : undefined;
  };
  for (const [key, value] of query) {
    if (!known.has(key) && !["seed", "left", "right"].includes(key)) continue;
    const found = read(key, value);
    if (found === undefined) refused.push(`${key} ${value}`);
    else state[key] = found;
  }
  return { state, refused };
}

// The query that names all that is not as at the start; empty where nothing is.
export function linkOfState(spec, state) {
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const changed = Object.entries(state).filter(([key, value]) => !same(value, spec.start[key]));
  const parts = changed.map(([key, value]) => [key, [value].flat().join("~")]);
  return parts.length ? `?${new URLSearchParams([["lab", spec.name], ...parts])}` : "";
}
