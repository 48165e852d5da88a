package main

// slices are parameters that are slices.
func slices(names ...string) (ps []param) {
	for _, n := range names {
		ps = append(ps, param{n, "[]float32"})
	}
	return ps
}

// floats appends parameters that are numbers.
func floats(ps []param, names ...string) []param {
	for _, n := range names {
		ps = append(ps, param{n, "float32"})
	}
	return ps
}

func (a *assembler) kernels() {
	a.maximum()
	a.expSum()
	a.expDot()
	a.softmaxBackward()
	a.swiglu()
	a.swigluBackward()
	a.dot()
	a.dot3()
	a.norm()
	a.normBackward()
	a.simple()
	a.rotate()
	a.adamW("adamW", false)
	a.adamW("adamWFar", true)
}

func (a *assembler) maximum() {
	a.begin("returns the largest element.", "max", slices("x"), param{"ret", "float32"})
	const x, top, least = 0, 1, 2
	a.constant("negInfinity", least)
	a.vec("VMOVAPS", least, top)
	a.loop(func() {
		a.load("x", x)
		a.fill(least, x)
		a.raise(x, top)
	})
	a.fold("VMAXPS", 4, top, x)
	a.result(4, top, "ret")
	a.end()
}

// raise sets the lanes of top to those of x that are greater.
func (a *assembler) raise(x, top int) {
	if a.isa.neon() {
		a.raiseNEON(x, top)
		return
	}
	a.vec("VMAXPS", top, x, top) // the last source, top, where x is a NaN
}

func (a *assembler) expSum() {
	a.begin("leaves e^(x-sub) in x and returns the sum.", "expSum", floats(slices("x"), "sub"), param{"ret", "float64"})
	const x, low, high, sub = 0, 10, 11, 12
	a.limits()
	a.spread("sub", sub)
	a.zero(low, high)
	a.loop(func() {
		a.load("x", x)
		a.vec("VSUBPS", sub, x, x)
		a.exp(x, 1, 2, 3)
		a.store(x, "x")
		a.keep(x)
		a.widen(x, 1, 2)
		a.vec("VADDPD", 1, low, low)
		a.vec("VADDPD", 2, high, high)
	})
	a.total(low, high, "ret")
	a.end()
}

func (a *assembler) expDot() {
	a.begin("leaves e^(x-sub) in x and returns its sum and that of its products with d.", "expDot",
		floats(slices("x", "d"), "sub"), param{"sum", "float64"}, param{"dot", "float64"})
	const x, d, sub = 0, 4, 12
	a.limits()
	a.spread("sub", sub)
	a.zero(8, 9, 10, 11)
	a.loop(func() {
		a.load("x", x)
		a.load("d", d)
		a.vec("VSUBPS", sub, x, x)
		a.exp(x, 1, 2, 3)
		a.store(x, "x")
		a.keep(x)
		a.widen(x, 1, 2)
		a.widen(d, 5, 6)
		a.vec("VADDPD", 1, 8, 8)
		a.vec("VADDPD", 2, 9, 9)
		a.vec("VFMADD231PD", 1, 5, 10)
		a.vec("VFMADD231PD", 2, 6, 11)
	})
	a.total(8, 9, "sum")
	a.total(10, 11, "dot")
	a.end()
}

func (a *assembler) softmaxBackward() {
	a.begin("does p = f*p, d = scale*p*(d-delta).", "softmaxBackward", floats(slices("p", "d"), "f", "delta", "scale"))
	const p, d, f, delta, scale = 0, 1, 2, 3, 4
	a.spread("f", f)
	a.spread("delta", delta)
	a.spread("scale", scale)
	a.loop(func() {
		a.load("p", p)
		a.load("d", d)
		a.vec("VMULPS", f, p, p)
		a.vec("VSUBPS", delta, d, d)
		a.store(p, "p")
		a.vec("VMULPS", scale, p, p)
		a.vec("VMULPS", p, d, d)
		a.store(d, "d")
	})
	a.end()
}

// negative writes to r the lanes of yes where g has its sign set, of no elsewhere.
func (a *assembler) negative(g, yes, no, r int) {
	if a.isa.neon() {
		a.negativeNEON(g, yes, no, r)
		return
	}
	if a.isa.wide() {
		a.op("VBLENDMPS Z%d, Z%d, K2, Z%d", yes, no, r)
		return
	}
	a.op("VBLENDVPS Y%d, Y%d, Y%d, Y%d", g, yes, no, r)
}

// logistic loads g and leaves silu(g) = g*e/(1+e) in register 1, with e = e^-|g| where g is negative and else
// g/(1+e): 1+e in 2, and e in 3.
func (a *assembler) logistic(g, one int) {
	const s, sum, e = 1, 2, 3
	a.load("g", g)
	if a.isa.wide() {
		a.op("VPMOVD2M Z%d, K2", g)
		a.with("VPORD", "sign", g, e)
	} else {
		a.with("VORPS", "sign", g, e)
	}
	a.exp(e, 1, 2, 4)
	a.negative(g, e, one, s)
	a.vec("VADDPS", one, e, sum)
	a.vec("VMULPS", g, s, s)
	a.vec("VDIVPS", sum, s, s)
}

func (a *assembler) swiglu() {
	a.begin("does y = g*sigmoid(g)*u.", "swiglu", slices("y", "g", "u"))
	const g, silu, u, one = 0, 1, 2, 12
	a.limits()
	a.constant("one", one)
	a.loop(func() {
		a.logistic(g, one)
		a.load("u", u)
		a.vec("VMULPS", u, silu, u)
		a.store(u, "y")
	})
	a.end()
}

func (a *assembler) swigluBackward() {
	a.begin("does dg = dy*u*(s + silu(g)*(1-s)), s = sigmoid(g), and du = dy*silu(g).", "swigluBackward",
		slices("dg", "du", "dy", "g", "u"))
	const g, silu, sum, e, dy, u, s, rest, one = 0, 1, 2, 3, 4, 5, 6, 7, 12
	a.limits()
	a.constant("one", one)
	a.loop(func() {
		a.logistic(g, one)
		a.load("dy", dy)
		a.load("u", u)
		a.vec("VDIVPS", sum, one, sum)
		a.negative(g, e, one, s)
		a.negative(g, one, e, rest)
		a.vec("VMULPS", sum, s, s)
		a.vec("VMULPS", sum, rest, rest)
		a.vec("VFMADD231PS", silu, rest, s)
		a.vec("VMULPS", dy, u, u)
		a.vec("VMULPS", dy, silu, silu)
		a.vec("VMULPS", s, u, u)
		a.store(silu, "du")
		a.store(u, "dg")
	})
	a.end()
}

func (a *assembler) dot() {
	a.begin("returns the sum of a*b.", "dot", slices("a", "b"), param{"ret", "float64"})
	a.zero(10, 11)
	a.loop(func() {
		a.load("a", 0)
		a.load("b", 3)
		a.widen(0, 1, 2)
		a.widen(3, 4, 5)
		a.vec("VFMADD231PD", 1, 4, 10)
		a.vec("VFMADD231PD", 2, 5, 11)
	})
	a.total(10, 11, "ret")
	a.end()
}

func (a *assembler) dot3() {
	a.begin("returns the sum of a*b*c.", "dot3", slices("a", "b", "c"), param{"ret", "float64"})
	a.zero(10, 11)
	a.loop(func() {
		a.load("a", 0)
		a.load("b", 3)
		a.load("c", 6)
		a.widen(0, 1, 2)
		a.widen(3, 4, 5)
		a.widen(6, 7, 8)
		a.vec("VMULPD", 4, 1, 1)
		a.vec("VMULPD", 5, 2, 2)
		a.vec("VFMADD231PD", 1, 7, 10)
		a.vec("VFMADD231PD", 2, 8, 11)
	})
	a.total(10, 11, "ret")
	a.end()
}

func (a *assembler) norm() {
	a.begin("does y = gain*(x*f).", "norm", floats(slices("y", "x", "gain"), "f"))
	const x, gain, f = 0, 1, 2
	a.spread("f", f)
	a.loop(func() {
		a.load("x", x)
		a.load("gain", gain)
		a.vec("VMULPS", f, x, x)
		a.vec("VMULPS", gain, x, x)
		a.store(x, "y")
	})
	a.end()
}

func (a *assembler) normBackward() {
	a.begin("does dx = f*(gain*dy - x*c).", "normBackward", floats(slices("dx", "dy", "gain", "x"), "f", "c"))
	const dy, gain, x, f, c = 0, 1, 2, 3, 4
	a.spread("f", f)
	a.spread("c", c)
	a.loop(func() {
		a.load("dy", dy)
		a.load("gain", gain)
		a.load("x", x)
		a.vec("VMULPS", c, x, x)
		a.vec("VFMSUB231PS", dy, gain, x) // x = gain*dy - x
		a.vec("VMULPS", f, x, x)
		a.store(x, "dx")
	})
	a.end()
}

func (a *assembler) simple() {
	a.begin("does y = f*x.", "scale", floats(slices("y", "x"), "f"))
	a.spread("f", 1)
	a.loop(func() {
		a.load("x", 0)
		a.vec("VMULPS", 1, 0, 0)
		a.store(0, "y")
	})
	a.end()

	a.begin("does y += x.", "add", slices("y", "x"))
	a.loop(func() {
		a.load("y", 0)
		a.load("x", 1)
		a.vec("VADDPS", 1, 0, 0)
		a.store(0, "y")
	})
	a.end()

	a.begin("does y = a*b.", "mul", slices("y", "a", "b"))
	a.loop(func() {
		a.load("a", 0)
		a.load("b", 1)
		a.vec("VMULPS", 1, 0, 0)
		a.store(0, "y")
	})
	a.end()

	a.begin("does y += a*b.", "mulAdd", slices("y", "a", "b"))
	a.loop(func() {
		a.load("a", 0)
		a.load("b", 1)
		a.load("y", 2)
		a.vec("VMULPS", 1, 0, 0)
		a.vec("VADDPS", 0, 2, 2)
		a.store(2, "y")
	})
	a.end()
}

// rotate does one row's heads. R9 and R10 are the second halves of x and dst, R12 and R13 how far heads lie apart.
func (a *assembler) rotate() {
	params := append(slices("dst"), param{"ldd", "int"}, param{"x", "[]float32"}, param{"ldx", "int"})
	params = append(append(params, slices("cos", "sin")...), param{"heads", "int"}, param{"flip", "uint32"})
	a.begin("turns heads by the angles, or back where flip is the sign bit.", "rotate", params)
	const lo, hi, c, s, t, flip = 0, 1, 2, 3, 4, 5
	a.spread("flip", flip)
	count := a.count()
	a.move(a.args["cos_len"], count)
	a.streams["hi"], a.streams["dstHi"] = "R9", "R10"
	a.element(a.streams["x"], count, "R9")
	a.element(a.streams["dst"], count, "R10")
	a.move(a.args["ldx"], "R12")
	a.move(a.args["ldd"], "R13")
	a.move(a.args["heads"], "R8")
	a.label("heads")
	a.move(a.args["cos_len"], count)
	a.loop(func() {
		a.load("x", lo)
		a.load("hi", hi)
		a.load("cos", c)
		a.load("sin", s)
		a.vec("VXORPS", flip, s, s)
		a.vec("VMULPS", s, lo, t)
		a.vec("VMULPS", c, lo, lo)
		a.vec("VMULPS", s, hi, s)
		a.vec("VMULPS", c, hi, hi)
		a.vec("VSUBPS", s, lo, lo)
		a.vec("VADDPS", t, hi, hi)
		a.store(lo, "dst")
		a.store(hi, "dstHi")
	})
	for _, r := range []string{a.streams["x"], "R9"} {
		a.element(r, "R12", r)
	}
	for _, r := range []string{a.streams["dst"], "R10"} {
		a.element(r, "R13", r)
	}
	a.again("R8", "heads")
	a.end()
}

// adamW rounds every product and sum, as PyTorch does in most places.
func (a *assembler) adamW(name string, far bool) {
	a.begin("takes a step.", name, append(slices("value", "grad", "m", "v"), param{"f", "*AdamW"}))
	const g, m, v, value, t = 0, 1, 2, 3, 4
	factors := map[string]int{}
	a.move(a.args["f"], "R9")
	for i, n := range []string{"Decay", "Beta1", "Take1", "Beta2", "Take2", "Rate", "Correct", "Eps"} {
		factors[n] = 5 + i
		a.broadcast("AdamW_"+n+"(R9)", 5+i)
	}
	a.loop(func() {
		a.load("grad", g)
		a.load("m", m)
		a.load("v", v)
		a.load("value", value)
		a.vec("VSUBPS", m, g, t)
		if far {
			a.vec("VMULPS", factors["Beta1"], t, t)
			a.vec("VSUBPS", t, g, m)
		} else {
			a.vec("VMULPS", factors["Take1"], t, t)
			a.vec("VADDPS", t, m, m)
		}
		a.vec("VMULPS", factors["Beta2"], v, v)
		a.vec("VMULPS", factors["Take2"], g, t)
		a.vec("VMULPS", g, t, t)
		a.vec("VADDPS", t, v, v)
		a.store(m, "m")
		a.store(v, "v")
		a.vec("VSQRTPS", v, v)
		a.vec("VDIVPS", factors["Correct"], v, v)
		a.vec("VADDPS", factors["Eps"], v, v)
		a.vec("VMULPS", factors["Rate"], m, m)
		a.vec("VDIVPS", v, m, m)
		a.vec("VMULPS", factors["Decay"], value, value)
		a.vec("VSUBPS", m, value, value)
		a.store(value, "value")
	})
	a.end()
}
