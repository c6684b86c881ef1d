"""Programs for Node: what each does when the go file appears. Must not know: what is expected of them."""

#: Looks five names up at once.
STARVED = """
const fs = require('fs'), dns = require('dns');
const file = (option) => process.argv[process.argv.indexOf(option) + 1];
fs.writeFileSync(file('--ready-file'), '');
const waiting = setInterval(() => {
  if (!fs.existsSync(file('--go-file'))) return;
  clearInterval(waiting);
  let left = 5;
  for (let i = 0; i < 5; i++) dns.lookup(`n${i}.lab.test`, () => { if (--left == 0) console.log('{}'); });
}, 5);
"""
