Binput_2J0G:ซoEฤ๐ฟ&|qงาWเ?Au๎RFำ?๎เ]๚dZี?ผGk<๑ๅเ?ü9บบ
ฯ?