import { Kontext, demoModel } from './sdk/src/node.ts';
const kontext = await Kontext.load(demoModel(), {});
for (const n of [1,2]) {
const ev: [string, number, number|undefined, number][] = []; const t0=performance.now();
const r=await kontext.edit({ image: 'examples/demo-model/inputs/apple-on-red.png', prompt: 'make it black and white '+n, seed: 1, onProgress: (e:any)=>ev.push([e.type+' '+(e.stage??e.component??e.step??'')+(e.done?' '+e.done+'/'+e.total:''), performance.now()-t0, e.remainingMs, e.progress]) });
const total=performance.now()-t0; let last='';
for (const [n,t,rem,p] of ev) { if (n.startsWith('compile')||n.startsWith('load')) {const k=n.split(' ')[0]+n.split(' ')[1]; if(k===last) continue; last=k;} console.log(n.padEnd(30), 'left', Math.round(total-t), 'told', rem===undefined?'-':Math.round(rem), 'p', p.toFixed(3)); }
}
process.exit(0)
